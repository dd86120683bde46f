job "spread-even" {
  spread {
    attribute = "${node.datacenter}"
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
