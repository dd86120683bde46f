job "check-http" {
  group "app" {
    network {
      port "http" {}
    }
    service {
      name = "web"
      port = "http"
      check {
        name            = "alive"
        type            = "http"
        path            = "/health"
        protocol        = "https"
        method          = "POST"
        body            = "{}"
        interval        = "5s"
        timeout         = "1s"
        tls_skip_verify = true
        tls_server_name = "web.example.org"
        port            = "http"
        address_mode    = "host"
        header {
          Host    = ["example.org"]
          X-Probe = ["a", "b"]
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
