job "job-update-old-style" {
  update {
    stagger      = "10s"
    max_parallel = 1
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
