job "service-default" {
  group "app" {
    network {
      port "http" {}
    }
    service {
      port = "http"
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
