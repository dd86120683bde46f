job "group-disconnect-stop" {
  group "app" {
    disconnect {
      stop_on_client_after = "30s"
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
