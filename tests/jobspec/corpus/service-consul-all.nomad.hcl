job "service-consul-all" {
  group "app" {
    network {
      port "http" {}
    }
    service {
      name                = "${JOB}-${TASKGROUP}"
      provider            = "consul"
      port                = "http"
      address_mode        = "auto"
      address             = "10.0.0.9"
      enable_tag_override = true
      on_update           = "ignore_warnings"
      cluster             = "default"
      task                = "main"
      meta {
        version = "1"
      }
      canary_meta {
        version = "2"
      }
      tagged_addresses {
        lan = "192.0.2.1"
      }
      weights {
        passing = 10
        warning = 0
      }
      identity {
        aud = ["consul.io"]
        ttl = "1h"
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
