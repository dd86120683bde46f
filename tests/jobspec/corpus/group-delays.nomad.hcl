job "group-delays" {
  group "app" {
    shutdown_delay = "12s"

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
