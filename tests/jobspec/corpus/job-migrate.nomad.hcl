job "job-migrate" {
  migrate {
    max_parallel     = 2
    health_check     = "task_states"
    min_healthy_time = "5s"
    healthy_deadline = "2m"
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
