job "check-grpc" {
  group "app" {
    network {
      port "http" {}
    }
    service {
      name = "web"
      port = "http"
      check {
        type           = "grpc"
        grpc_service   = "shop.Cart"
        grpc_use_tls   = true
        interval       = "10s"
        timeout        = "1s"
        initial_status = "passing"
        advertise      = "unused"
        expose         = false
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
