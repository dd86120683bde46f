job "job-system-update" {
  type = "system"
  update {
    max_parallel = 2
    stagger      = "1m"
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
