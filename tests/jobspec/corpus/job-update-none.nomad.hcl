job "job-update-none" {
  update {
    max_parallel = 0
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
