job "group-scaling" {
  group "app" {
    count = 2
    scaling {
      enabled = true
      min     = 1
      max     = 10
      policy {
        cooldown = "2m"
        check "load" {
          source = "prometheus"
          query  = "avg(load1)"
          strategy "target-value" {
            target = 0.7
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
