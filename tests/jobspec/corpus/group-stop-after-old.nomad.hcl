job "group-stop-after-old" {
  group "app" {
    stop_after_client_disconnect = "90s"

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
