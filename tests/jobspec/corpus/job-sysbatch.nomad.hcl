job "job-sysbatch" {
  type = "sysbatch"

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
