job "connect-mesh" {
  group "app" {
    network {
      mode = "bridge"
    }
    service {
      name = "web"
      port = "9001"
      connect {
        gateway {
          mesh {}
        }
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
