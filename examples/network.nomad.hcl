# A web server and its helper in a network of their own: they meet at 127.0.0.1, and others at a mapped port.

job "guestbook" {
  group "site" {
    network {
      mode = "bridge"

      port "http" {
        to = 8080
      }

      dns {
        servers  = ["192.0.2.53"]
        searches = ["example.com"]
      }
    }

    service {
      name         = "guestbook"
      port         = "http"
      provider     = "nomad"
      address_mode = "alloc"

      check {
        type     = "http"
        path     = "/"
        interval = "10s"
        timeout  = "2s"

        check_restart {
          limit = 3
          grace = "10s"
        }
      }
    }

    task "web" {
      driver = "docker"

      config {
        image   = "busybox:1"
        command = "httpd"
        args    = ["-f", "-p", "8080", "-h", "/alloc/data"]
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }

    task "writer" {
      driver = "exec"

      config {
        command = "/bin/sh"
        args    = ["-c", "while true; do date > ${NOMAD_ALLOC_DIR}/data/index.html; sleep 1; done"]
      }

      resources {
        cpu    = 20
        memory = 16
      }
    }
  }
}
