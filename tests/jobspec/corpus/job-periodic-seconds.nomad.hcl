job "job-periodic-seconds" {
  type = "batch"
  periodic {
    cron = "0/3 * * * * * *"
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
