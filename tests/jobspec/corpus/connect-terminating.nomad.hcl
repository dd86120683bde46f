job "connect-terminating" {
  group "app" {
    network {
      mode = "bridge"
    }
    service {
      name = "web"
      port = "9001"
      connect {
        gateway {
          terminating {
            service {
              name      = "legacy"
              ca_file   = "/ca.pem"
              cert_file = "/cert.pem"
              key_file  = "/key.pem"
              sni       = "legacy.example.org"
            }
          }
        }
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
