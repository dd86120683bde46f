job "connect-sidecar" {
  group "app" {
    network {
      mode = "bridge"
    }
    service {
      name = "web"
      port = "9001"
      connect {
        sidecar_service {}
      }
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
