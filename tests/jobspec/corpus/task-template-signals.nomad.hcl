job "task-template-signals" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      template {
        data        = "a"
        destination = "local/a"
        change_mode = "signal"
      }
      template {
        data          = "b"
        destination   = "local/b"
        change_mode   = "signal"
        change_signal = "sigusr2"
      }
      template {
        data        = "c"
        destination = "local/c"
        change_mode = "noop"
        env         = true
      }
    }
  }
}
