job "network-host" {
  group "app" {
    network {
      port "http" {}
      port "admin" {
        static = 9000
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
