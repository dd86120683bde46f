job "service-in-task" {
  group "app" {
    network {
      port "http" {}
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      service {
        name     = "${BASE}"
        provider = "nomad"
        port     = "http"
      }
    }
  }
}
