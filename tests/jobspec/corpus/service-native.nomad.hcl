job "service-native" {
  group "app" {
    network {
      port "http" {}
    }
    service {
      name         = "web"
      provider     = "nomad"
      port         = "http"
      tags         = ["v1", "${NOMAD_ALLOC_INDEX}"]
      canary_tags  = ["canary"]
      address_mode = "host"
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
