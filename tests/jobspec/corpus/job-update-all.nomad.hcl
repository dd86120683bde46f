job "job-update-all" {
  update {
    max_parallel      = 3
    health_check      = "task_states"
    min_healthy_time  = "15s"
    healthy_deadline  = "3m"
    progress_deadline = "20m"
    auto_revert       = true
    auto_promote      = true
    canary            = 2
    stagger           = "45s"
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
