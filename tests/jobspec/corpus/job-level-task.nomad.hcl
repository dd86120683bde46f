job "job-level-task" {
  task "alone" {
    driver = "raw_exec"

    config {
      command = "/bin/true"
    }
  }

  group "app" {
    count = 2

    task "main" {
      driver = "raw_exec"

      config {
        command = "/bin/true"
      }
    }
  }

  task "second" {
    driver = "raw_exec"

    config {
      command = "/bin/false"
    }
  }
}
