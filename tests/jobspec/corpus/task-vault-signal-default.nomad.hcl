job "task-vault-signal-default" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      vault {
        change_mode = "signal"
      }
    }
  }
}
