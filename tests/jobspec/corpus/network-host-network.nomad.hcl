job "network-host-network" {
  group "app" {
    network {
      port "internal" {
        to           = 80
        host_network = "private"
      }
      port "shared" {
        static           = 53
        ignore_collision = true
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
