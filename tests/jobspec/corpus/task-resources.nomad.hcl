job "task-resources" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      resources {
        cpu        = 500
        memory     = 256
        memory_max = 512
        secrets    = 8
      }
    }
  }
}
