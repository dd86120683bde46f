job "lang-dynamic-nested" {
  dynamic "spread" {
    for_each = [{ attribute = "$${node.datacenter}", targets = { dc1 = 60, dc2 = 40 } }]
    content {
      attribute = spread.value.attribute
      dynamic "target" {
        for_each = spread.value.targets
        iterator = it
        labels   = [it.key]
        content {
          percent = it.value
        }
      }
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
