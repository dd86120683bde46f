job "network-bridge" {
  group "app" {
    network {
      mode     = "bridge"
      hostname = "web-${NOMAD_ALLOC_INDEX}"
      port "http" {
        static = 8080
        to     = 80
      }
      port "metrics" {
        to = -1
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
