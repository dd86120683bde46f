job "job-reschedule-off" {
  reschedule {
    attempts  = 0
    unlimited = false
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
