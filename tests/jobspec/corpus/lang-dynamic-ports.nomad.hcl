job "lang-dynamic-ports" {
  group "app" {
    network {
      dynamic "port" {
        for_each = ["http", "admin"]
        labels   = [port.value]
        content {
          to = 8000 + port.key
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
