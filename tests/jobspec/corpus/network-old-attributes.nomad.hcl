job "network-old-attributes" {
  group "app" {
    network {
      mbits  = 20
      device = "eth0"
      cidr   = "10.0.0.0/8"
      ip     = "10.1.2.3"
      reserved_ports "dns" {
        static = 53
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
