job "constraint-empty-operator" {
  constraint {
    attribute = "${attr.cpu.arch}"
    operator  = ""
    value     = "amd64"
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
