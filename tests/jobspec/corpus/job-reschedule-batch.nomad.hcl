job "job-reschedule-batch" {
  type = "batch"
  reschedule {
    attempts = 2
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
