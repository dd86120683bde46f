job "lang-dynamic-empty" {
  dynamic "constraint" {
    for_each = []
    content {
      attribute = constraint.value
    }
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
