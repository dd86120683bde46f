job "lang-for-expressions" {
  datacenters = [for d in ["a", "b"] : "dc-${d}" if d != "b"]
  meta        = { for k, v in { x = 1, y = 2 } : upper(k) => v * 10 }

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
