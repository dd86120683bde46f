job "network-none" {
  group "app" {
    network {
      mode = "none"
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
