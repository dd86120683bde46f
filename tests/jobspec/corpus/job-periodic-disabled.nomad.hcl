job "job-periodic-disabled" {
  type = "batch"
  periodic {
    cron    = "@daily"
    enabled = false
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
