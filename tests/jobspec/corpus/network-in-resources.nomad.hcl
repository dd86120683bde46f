job "network-in-resources" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      resources {
        network {
          mbits = 10
          port "http" {
            static = 80
          }
          port "debug" {}
        }
      }
    }
  }
}
