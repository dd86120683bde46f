job "job-parameterized-default" {
  type = "batch"
  parameterized {}

  group "app" {
    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }
}
