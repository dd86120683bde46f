job "job-ui" {
  ui {
    description = "The shop"
    link {
      label = "Runbook"
      url   = "https://example.org/runbook"
    }
    link {
      label = "Dashboard"
      url   = "https://example.org/dashboard"
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
