job "service-in-task-driver" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      service {
        name         = "raw"
        address_mode = "driver"
        port         = "8080"
        tags         = []
      }
    }
  }
}
