job "group-scaling-count-from-min" {
  group "app" {
    scaling {
      min = 3
      max = 9
    }

    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }
    }
  }
}
