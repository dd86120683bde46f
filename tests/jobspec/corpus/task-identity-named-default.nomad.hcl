job "task-identity-named-default" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      identity {
        name        = "default"
        change_mode = "restart"
      }
    }
  }
}
