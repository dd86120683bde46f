variable "shards" {
  type    = map(number)
  default = { b = 2, a = 1 }
}

job "lang-dynamic-groups" {
  dynamic "group" {
    for_each = var.shards
    iterator = shard
    labels   = ["shard-${shard.key}"]

    content {
      count = shard.value

      task "main" {
        driver = "docker"

        config {
          image = "shop/${shard.key}:${NOMAD_META_version}"
        }
      }
    }
  }
}
