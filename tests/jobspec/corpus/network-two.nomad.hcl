job "network-two" {
  group "app" {
    network {
      port "a" {}
    }
    network {
      mode = "host"
      port "b" {}
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
