job "lang-for-grouping" {
  meta {
    groups = jsonencode({ for s in ["ant", "ape", "bee"] : substr(s, 0, 1) => s... })
  }

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
