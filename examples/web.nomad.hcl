# A page served by busybox's web server: no image, no download. Try it on a development agent:
#
#   herder agent -dev
#   herder job run examples/web.nomad.hcl
#   herder alloc logs -job web

variable "greeting" {
  type    = string
  default = "Herder keeps this page up."
}

job "web" {
  type = "service"

  group "site" {
    count = 2

    network {
      port "http" {}
    }

    service {
      name     = "web"
      port     = "http"
      provider = "nomad"
      tags     = ["page"]

      check {
        type     = "http"
        path     = "/index.html"
        interval = "10s"
        timeout  = "2s"
      }
    }

    update {
      max_parallel     = 1
      min_healthy_time = "5s"
      healthy_deadline = "1m"
      auto_revert      = true
    }

    task "server" {
      driver = "raw_exec"

      config {
        command = "busybox"
        args    = ["httpd", "-f", "-v", "-p", "${NOMAD_PORT_http}", "-h", "local/www"]
      }

      template {
        data        = <<EOT
<h1>${var.greeting}</h1>
<p>Allocation {{ env "NOMAD_SHORT_ALLOC_ID" }}, number {{ env "NOMAD_ALLOC_INDEX" }}, on port {{ env "NOMAD_PORT_http" }}.</p>
EOT
        destination = "local/www/index.html"
        change_mode = "noop"
      }

      resources {
        cpu    = 50
        memory = 32
      }
    }
  }
}
