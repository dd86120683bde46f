job "task-resources-old" {
  group "app" {
    task "main" {
      driver = "docker"

      config {
        image = "alpine:3.20"
      }

      resources {
        disk       = 300
        iops       = 10
        memory_max = -1
      }
    }
  }
}
