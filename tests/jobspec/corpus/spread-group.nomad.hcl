job "spread-group" {
  group "app" {
    spread {
      attribute = "${meta.rack}"
      weight    = 20
      target "r1" {
        value   = "r1"
        percent = 100
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
