# A cache in a container, and a web server that finds it by its service name.

locals {
  images = {
    cache = "redis:7"
    proxy = "nginx:1.27"
  }
}

job "shop" {
  group "cache" {
    network {
      port "redis" {
        to = 6379
      }
    }

    service {
      name     = "shop-cache"
      port     = "redis"
      provider = "nomad"

      check {
        type     = "tcp"
        interval = "10s"
        timeout  = "2s"
      }
    }

    task "redis" {
      driver = "docker"

      config {
        image = local.images.cache
        ports = ["redis"]
      }

      resources {
        cpu    = 200
        memory = 128
      }
    }
  }

  group "front" {
    count = 2

    network {
      port "http" {
        to = 80
      }
    }

    spread {
      attribute = "${node.unique.id}"
    }

    dynamic "service" {
      for_each = ["shop", "shop-admin"]

      content {
        name     = service.value
        port     = "http"
        provider = "nomad"
      }
    }

    task "nginx" {
      driver = "docker"

      config {
        image = local.images.proxy
        ports = ["http"]

        mount {
          type   = "bind"
          source = "local/site"
          target = "/etc/nginx/conf.d"
        }
      }

      template {
        data        = <<EOT
upstream cache {
{{- range nomadService "shop-cache" }}
  server {{ .Address }}:{{ .Port }};
{{- else }}
  server 127.0.0.1:1;
{{- end }}
}
server {
  listen 80;
  location / { return 200 "shop\n"; }
}
EOT
        destination   = "local/site/default.conf"
        change_mode   = "signal"
        change_signal = "SIGHUP"
      }

      resources {
        cpu    = 100
        memory = 64
      }
    }
  }
}
